"""What keeps a home small and people forgotten: retention, deletion, another bucket count."""
