"""What dry runs read and write."""
