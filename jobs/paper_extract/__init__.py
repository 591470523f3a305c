"""The `paper-extract` job: claims with quotes that are checked against the text."""
