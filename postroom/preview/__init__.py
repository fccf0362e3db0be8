"""What templates look like, for the team that writes them: a live page of a folder, and two versions side by side.

showings  a template rendered on its examples, in every locale
folder    a folder of templates that is read again when a file changes
app       the live page
compare   an old and a new version of a template
words     the difference for a terminal
sheet     the difference as a page of its own
"""
