//! What the model has found, with its shortest operations.
