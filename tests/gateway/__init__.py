"""The gateway: its pure dispatch under a scripted clock, and the whole of it under real clients."""
