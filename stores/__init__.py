"""Feature stores: a map from a video to rows, every row with the seconds it stands for."""
