"""The encodings of Qualcomm's AIMET."""
