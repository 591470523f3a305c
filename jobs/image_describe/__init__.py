"""The `image-describe` job: a caption, and the objects of an image with their places."""
