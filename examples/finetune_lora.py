"""Fine-tune a bundle: `accelerate launch examples/finetune_lora.py --model runs/demo/model --data my-shop`.

LoRA unless `--method` says otherwise; the options: `--help`, which may come from `--config file.yaml`.
"""

import sys

from recbase_hf.cli import main

if __name__ == "__main__":
    main(["finetune", *sys.argv[1:]])
