"""Papers: corpora in JSON Lines and Parquet, and folders of PDF, JATS, TEI, LaTeX, Markdown and plain text."""
