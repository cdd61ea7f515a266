//! The shell, `llmsh`.
