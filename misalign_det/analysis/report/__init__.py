"""The misalignment report: what it measures, and the HTML file."""
