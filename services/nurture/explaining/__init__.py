"""Why: of a message, of a run, of somebody who did not enter; and all that happened to a person, in order."""
