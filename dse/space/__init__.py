"""Space files to decision variables."""
