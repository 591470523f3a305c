"""Results of another run as a source, so that stages chain."""

from s1batch.readers.results.reader import ResultsReader
from s1batch.readers.results.spec import ResultsSource

__all__ = ["ResultsReader", "ResultsSource"]
