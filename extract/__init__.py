"""From videos to feature stores: decoding, backbones, and the pipeline that joins them."""
