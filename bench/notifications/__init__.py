"""Push delivery measured: throughput beside what users would pick instead, latency, growth, memory and transports."""
