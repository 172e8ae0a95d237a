"""Routers: from task ids to mixing weights over skills."""
