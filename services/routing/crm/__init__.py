"""Assignments, stages and deals written back to a CRM: an endpoint whose facts become calls of its REST interface."""
