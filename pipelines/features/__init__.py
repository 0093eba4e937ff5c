"""Online features: declared in Feast, looked up at decision time, fed from uploads and from the outcomes' stream."""
