"""The database: the shared schema's models, the engine, transactions and the worker-owned tables' migrations."""
