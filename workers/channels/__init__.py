"""Channels: one way out of an agent each, behind one seam.

A channel opens connections; a connection submits one message at a time. What ends in which outcome is a
literal table at the top of each channel's file.
"""
