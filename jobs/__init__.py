"""Jobs: one science task per module, each behind the seam of `base`."""
