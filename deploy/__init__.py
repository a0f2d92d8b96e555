"""What runs Throughline: images, chart, dashboards, the embedded stack."""
