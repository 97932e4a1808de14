"""An OpenAI-compatible server over one engine: dasan serve MODEL, or create_app for one's own."""
