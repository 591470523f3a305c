"""Captions and objects of a folder of images."""
