"""`python -m agents`: the same as the console script `cnnprune`."""

import sys

from agents.cli import main

sys.exit(main())
