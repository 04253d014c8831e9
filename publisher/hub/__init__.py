"""The embedded Hub: what `huggingface_hub` and `transformers` expect of an HF_ENDPOINT, over a folder on disk.

`router.create_hub` makes the application to mount; `storage.HubStorage` reads and writes without HTTP.
"""
