//! What must hold between passes of the engine.
