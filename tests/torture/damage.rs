pub(super) fn judge_all(_: &std::path::Path, _: u64, _: u64) {}
