"""Selection of an estimator, or of its hyper-parameter, for the data at hand."""
