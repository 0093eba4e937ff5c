"""dsjson: the decision log of VW's reinforcement learning library and of Azure Personalizer, read and written."""
