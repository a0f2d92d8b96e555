"""When something may be sent to a person, and how much: hours, contact pressure, and the guard over bad reports."""
