"""Three items of each data set, written for the tests in the format its authors publish."""

import json
from pathlib import Path

HELLASWAG = [
    {"ind": k, "activity_label": label, "ctx_a": a, "ctx_b": b, "ctx": f"{a} {b}",
     "endings": endings, "split": "val", "label": gold}
    for k, (label, a, b, endings, gold) in enumerate([
        ("Baking bread", "A man kneads dough on a table.", "he",
         ["bakes it.", "paints  it.", "reads it.", "sings."], 0),
        ("Home", "[header] How to sweep [title] Take a broom. [step] Hold it", "",
         ["upright [substeps] and sweep.", "under water.", "by its price.", "in the song."], "0"),
        ("Chess", "Two players sit down.", "the first",
         ["eats a clock.", "moves a pawn.", "swims.", "rains."], 1),
    ])
]  # fmt: skip

RACE = {
    "middle/1": {
        "article": "Tom has a red kite. He flies it on Sundays.",
        "questions": ["What does Tom have?", "When does he fly it?"],
        "options": [["A kite", "A car", "A dog", "A hat"],
                    ["Mondays", "Sundays", "At night", "Never"]],
        "answers": ["A", "B"], "id": "middle1.txt",
    },
    "high/7": {
        "article": "The tide was out and the harbour lay empty.",
        "questions": ["Where were the boats?"],
        "options": [["At sea", "On land", "In the story", "Not told"]],
        "answers": ["D"], "id": "high7.txt",
    },
}  # fmt: skip

WINOGRANDE = [
    {"qID": "a-1", "sentence": "The cup did not fit the box because the _ was too big.",
     "option1": "cup", "option2": "box", "answer": "1"},
    {"qID": "a-2", "sentence": "The cup did not fit the box because the _ was too small.",
     "option1": "cup", "option2": "box", "answer": "2"},
    {"qID": "b-1", "sentence": "Ann thanked Eve for the help _ had given.",
     "option1": "Ann", "option2": "Eve", "answer": "2"},
]  # fmt: skip

TRIVIAQA = [
    {"Question": "Who wrote Emma?", "QuestionId": "q1",
     "Answer": {"Value": "Jane Austen", "Aliases": ["Jane Austen", "Austen, Jane"],
                "NormalizedAliases": ["jane austen", "austen jane"]}},
    {"Question": "Which gas do plants take in?", "QuestionId": "q2",
     "Answer": {"Value": "CO2", "Aliases": ["Carbon-dioxide"], "NormalizedAliases": [],
                "HumanAnswers": ["carbonic acid gas"]}},
    {"Question": "How many legs has a spider?", "QuestionId": "q3",
     "Answer": {"Value": "8", "Aliases": ["eight"], "NormalizedAliases": ["eight", "8"]}},
]  # fmt: skip

CLOZET = [
    {"story": "小猫想钓鱼。<mask>它只好回家。", "plot0": "它钓到十条鱼。",
     "plot1": "它一条也没有钓到。", "label": "1"},
    {"story": "<mask>于是大家都笑了。", "plot0": "他讲了一个笑话。", "plot1": "天黑了。",
     "label": "0"},
    {"story": "她种下一棵树。<mask>", "plot0": "树游走了。", "plot1": "树长大了。", "label": "1"},
]  # fmt: skip

CLUEWSC = [
    {"target": {"span2_index": 9, "span1_index": 0, "span1_text": name, "span2_text": "他"},
     "idx": k, "label": label, "text": "小明打电话给小刚，他没有接到。"}
    for k, (name, label) in enumerate([("小明", "false"), ("小刚", "true"), ("电话", "false")])
]  # fmt: skip

C3 = [
    [["男：你吃了吗?", "女：吃了。"],
     [{"question": "女的吃了吗?", "choice": ["吃了", "没吃"], "answer": "吃了"},
      {"question": "谁在问?", "choice": ["女的", "男的", "老师"], "answer": "男的"}], "1-1"],
    [["今天下雨，他没有出门。"],
     [{"question": "天气怎么样?", "choice": ["晴", "雨", "雪", "风"], "answer": "雨"}], "1-2"],
]  # fmt: skip

CEVAL = {
    "val/accountant_val.csv": "id,question,A,B,C,D,answer\n0,一加一等于____。,一,二,三,四,B\n"
    '1,"下列哪项是""资产""？",现金,债务,费用,收入,A\n',
    "val/law_val.csv": "id,question,A,B,C,D,answer\n0,法是什么？,甲,乙,丙,丁,D\n",
    "dev/accountant_dev.csv": "id,question,A,B,C,D,answer,explanation\n"
    "0,二加二等于____。,一,二,三,四,D,相加\n",
    "dev/law_dev.csv": "id,question,A,B,C,D,answer,explanation\n0,谁立法？,甲,乙,丙,丁,A,因为\n",
}

GSM8K_ZH = [
    {"question": "小明有3个苹果，又买了2个，一共几个？",
     "answer": "小明一共有3+2=<<3+2=5>>5个苹果。\n#### 5"},
    {"question": "一本书１２元，买两本多少钱？", "answer": "12*2=24元。\n#### 24"},
    {"question": "一年有几个月？", "answer": "12"},
]  # fmt: skip

NLPCC = (
    "<question id=1>\t《线性代数》的isbn码是什么？\n"
    "<triple id=1>\t线性代数 ||| isbn ||| 978-7-111-36843-4\n"
    "<answer id=1>\t978-7-111-36843-4\n"
    "==================================================\n"
    "<question id=2>\t机械设计基础这本书的作者是谁？\n"
    "<triple id=2>\t机械设计基础 ||| 作者 ||| 杨可桢\n"
    "<answer id=2>\t杨可桢 ||| 程光蕴\n"
    "==================================================\n"
    "<question id=3>\t谁写了红楼梦？\n<triple id=3>\t红楼梦 ||| 作者 ||| 曹雪芹\n"
    "<answer id=3>\t曹雪芹\n"
)


def write_lines(path: Path, records: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    return path


def write_all(folder: Path) -> dict[str, Path]:
    """Every data set's three items in a folder; the path to give for each."""
    for name, record in RACE.items():
        (folder / "RACE/test" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"RACE/test/{name}.txt").write_text(json.dumps(record))
    for name, text in CEVAL.items():
        (folder / "ceval" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "ceval" / name).write_text(text)
    (folder / "trivia.json").write_text(json.dumps({"Data": TRIVIAQA, "Domain": "unfiltered"}))
    (folder / "nlpcc.training-data").write_text(NLPCC)
    (folder / "c3-m-dev.json").write_text(json.dumps(C3, ensure_ascii=False))
    write_lines(folder / "lot/train.jsonl", CLOZET[:1])
    write_lines(folder / "lot/val.jsonl", CLOZET[1:])
    return {
        "triviaqa": folder / "trivia.json",
        "hellaswag": write_lines(folder / "hellaswag_val.jsonl", HELLASWAG),
        "race": folder / "RACE",
        "winogrande": write_lines(folder / "dev.jsonl", WINOGRANDE),
        "nlpcc_kbqa": folder / "nlpcc.training-data",
        "clozet": folder / "lot",
        "cluewsc": write_lines(folder / "wsc.json", CLUEWSC),
        "c3": folder / "c3-m-dev.json",
        "ceval": folder / "ceval",
        "gsm8k_zh": write_lines(folder / "zh.jsonl", GSM8K_ZH),
    }
