"""Attribution: journeys, and which touches earned the money."""
