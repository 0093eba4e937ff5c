"""What model files hold, read before a native library reads it."""
