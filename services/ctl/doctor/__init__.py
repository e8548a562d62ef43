"""`tracerctl doctor`: what services need to run here, looked at before they do."""
