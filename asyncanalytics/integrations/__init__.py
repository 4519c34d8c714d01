"""One small file for each framework: how a client is started, reached, bound and closed there.

Import the one that you use, such as `asyncanalytics.integrations.fastapi`. Each needs its
framework, and says which extra brings it.
"""
