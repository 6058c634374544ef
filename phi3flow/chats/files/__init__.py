"""Where rows stand: files of any kind, folders, patterns and the hub."""
