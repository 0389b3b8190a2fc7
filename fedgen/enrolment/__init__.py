"""How a site and a coordinator come to know each other: homes on disk, and signed documents between them."""
