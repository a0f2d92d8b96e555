"""The door for webhooks, and what is made of a delivery once it is stored."""
