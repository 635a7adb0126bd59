"""Recurrent layers as loops over time that vectorize over trials and compile in little time."""
