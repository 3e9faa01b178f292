"""`python -m pruning_agents`: the same as the console script `cnnprune`."""

import sys

from pruning_agents.cli.main import main

sys.exit(main())
