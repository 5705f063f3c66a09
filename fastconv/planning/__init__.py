"""Problem, plan and planner: what is asked, who answers, and why."""
