import sys

from phi3flow.app.cli import main

sys.exit(main())
