"""Where the pipeline's time goes."""
