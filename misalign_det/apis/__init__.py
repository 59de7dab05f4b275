"""What the tools are built from: configs, options, detectors, messages to the user."""
