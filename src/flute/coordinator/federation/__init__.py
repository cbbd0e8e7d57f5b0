"""Who is in: a coordinator is made, hubs join, rosters are proposed and published."""
