"""What a job is, what is allowed, what is stored and what is done next. No HTTP server, no torch, no Ray."""
