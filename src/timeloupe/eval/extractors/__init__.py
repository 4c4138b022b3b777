"""What official scripts read out of a model's text, fault for fault: times, option letters."""
