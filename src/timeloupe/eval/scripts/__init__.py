"""Official scripts, fault for fault: what each makes of rows and predictions, whatever file it came from."""
