"""The `image-qa` job: a question about each image, with a typed answer."""
