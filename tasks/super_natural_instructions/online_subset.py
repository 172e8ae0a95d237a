"""The 20 held-out tasks that MHR's runs are evaluated on while they train (arXiv 2211.03831)."""

ONLINE_SUBSET = (
    "task034_winogrande_question_modification_object",
    "task1155_bard_analogical_reasoning_trash_or_treasure",
    "task1159_bard_analogical_reasoning_containers",
    "task1161_coda19_title_generation",
    "task1394_meta_woz_task_classification",
    "task1516_imppres_naturallanguageinference",
    "task1540_parsed_pdfs_summarization",
    "task1615_sick_tclassify_b_relation_a",
    "task1664_winobias_text_generation",
    "task1728_web_nlg_data_to_text",
    "task304_numeric_fused_head_resolution",
    "task362_spolin_yesand_prompt_response_sub_classification",
    "task614_glucose_cause_event_detection",
    "task619_ohsumed_abstract_title_generation",
    "task620_ohsumed_medical_subject_headings_answer_generation",
    "task648_answer_generation",
    "task738_perspectrum_classification",
    "task890_gcwd_classification",
    "task936_defeasible_nli_snli_classification",
    "task957_e2e_nlg_text_generation_generate",
)
"""Names of the tasks, which are all in the test list of the English track."""
